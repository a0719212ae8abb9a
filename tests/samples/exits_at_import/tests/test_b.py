import os

print("importing", flush=True)
os._exit(0)
