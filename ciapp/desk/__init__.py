"""What a user runs at their own desk: no server, no queue, the same testing as a worker's.

commands    the command lines
run         a working tree
"""
