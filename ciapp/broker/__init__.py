"""Queues of messages in a folder that any number of processes of one machine use at once.

In:  messages as bytes, each put on a queue; owners, who take messages and then settle them or give them back.
Out: each message to one owner at a time, the oldest of the highest priority first; to another when its owner
     dies.

A message is a file, and all that happens to it is one rename: from tmp/ into its queue once it is whole, from
the queue to the owner who takes it, back when it is returned. An owner holds a flock while it lives, and the
kernel ends that lock with the process: a folder of an owner whose lock can be had belongs to nobody, and
whoever finds it first puts its messages back.

    queues/QUEUE/MESSAGE        MESSAGE: <9 - priority>-<put at, ns>-<random>.<times returned>
    owners/OWNER/lock, wake     the flock; a FIFO: a byte in it means "look into your queues"
    owners/OWNER/MESSAGE!QUEUE  taken, not settled
    owners/OWNER/=QUEUE         a queue that ends with its owner; says how long its messages live, ms
    waiting/QUEUE/OWNER         the wake FIFOs (hard links) of those who consume from a queue
    exchanges/EXCHANGE/KEY!PATTERN!QUEUE   bindings: empty files
    tmp/                        what is not whole yet, or is being deleted
    aside/                      what was no message

Names are quoted as in a URL, so that any name makes one file name.
"""
