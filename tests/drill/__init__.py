"""The drill: pushes go on while everything that can die dies, and nothing may be lost or doubled.

python -m tests.drill --commits 1000 --seed 7 --broker rabbitmq --backend postgresql

plan       the seed decides commits, pushes and faults
projects   what a commit holds, and what each of its tests is to end as
history    the commits as git objects
stage      one ciapp with its services, kept running as systemd would
pushing    several clones push at once, each push paired with one to a repository without a hook
faults     what strikes whom (`striking`), brokers and databases, and when (`lanes`)
terminals  what people ask meanwhile: cancel, rerun, purge, backup
collecting `git gc`; and a repository that is away, or damaged (`damaging`)
updating   an older ciapp begins, and is updated while its workers run
oracle     the same commits, one after the other, by unittest alone (`plain`)
judgement  ledger against oracle, and what is left over
"""
