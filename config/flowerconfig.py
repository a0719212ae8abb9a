"""Flower's settings: `celery -A ciapp flower --conf=config/flowerconfig.py`.

Flower shows what happens now; the record is the ledger. Anybody who reaches its port can read it, so it
listens on this machine alone: put a web server that knows your people in front of it, or set `basic_auth`.
"""

from ciapp.settings import load_settings

address = load_settings().monitor_address
port = load_settings().monitor_port
# The run's state is changed through ciapp (`ciapp cancel`, `ciapp rerun`), never behind the ledger's back.
read_only = True
max_tasks = 10000
tasks_columns = "name,uuid,state,args,received,started,runtime,worker"
