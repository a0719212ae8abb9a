"""The program that runs a commit's tests under the commit's interpreter, and the protocol it speaks.

Standard library only, CPython 3.8 to 3.14. In the checkout it does what `python -m unittest discover -s START
-p PATTERN -t TOP` does (same ids, order, sys.path, sys.argv, warning filters), and says on a channel of its
own what happens. The exit status is no verdict. Where the tests have replaced parts of unittest's program,
runner or result, they are run through these.

Start:  python CHILD/__main__.py ORDERS     cwd is the checkout, stdin is empty

    ORDERS is a descriptor that holds one dict in marshal's format 2 (to be read before anything is imported):
    nonce           text; 16 hexadecimal digits, new for each child
    events          descriptor of the event channel
    faults          descriptor for stack dumps: of a crash, or on request
    dump            number of the signal that requests a dump of all threads' stacks
    start, pattern, top     what unittest's discovery takes; top may be None
    done            frozenset of (id, ordinal): tests that need not run any more
    only            frozenset of (id, ordinal): nothing else is run; None: everything
    scopes          tuple of modules and classes whose tests are run besides `only`
    names           tuple of patterns as unittest's -k takes them; empty: every name
    skip            tuple of modules that ended an earlier child while they were imported

Channels:  each is a pipe. The child moves its own ends up, out of the way of tests that close descriptors,
and no program that a test starts inherits them.

    stdout, stderr  what tests write, cut into scopes by markers:  \\x1e NONCE SPACE SCOPE \\x1e
        SCOPE lasts until the next marker. It is the index of a test that starts; `fN` for the Nth fixture;
        `-` after a fixture that went well, and after the last test; `!` after one that did not go well.
    faults          text, as faulthandler writes it
    events          lines:  NONCE SPACE JSON LF
        JSON is an object, ASCII only, of `type`, `n` (0, 1, 2, ...: a gap means that lines were lost), and

        hello               pid, python: the first line
        unusable            message: discovery cannot start; the last line
        loading             module: about to be imported by discovery
        discovery-failed    message, traceback: discovery broke over the module being loaded; the last line
        manifest            first, ids: tests in order; `first` is the index of ids[0]
        listed              tests, whole, unloaded, more: the manifest ends, nothing has run yet. Number of
                            tests; whether no suite makes its tests only when it runs; files that match the
                            pattern and were not loaded, `more` of them past the 100th
        late                id: a test that the manifest lacks; its index is the next one
        turn                test: its index; a run() of its class's own is about to be called
        suite               what runs until the next line is code of the tests' own suites
        start               test: its index in the manifest
        subtest             test, parameters, outcome, message, traceback
        stop                test, outcome, duration (seconds), message, traceback, more: once per test; its
                            start may be missing. `more` counts subtests without a line of their own
        broken              test, message, traceback: what came out of the run() of a test that had stopped
        fixture             serial, phase, scope, tests: about to run for `tests`; over with the next line.
                            Phase `run` is that of a suite of the tests' own class, of which scope is the name
        fixture-failed      phase, scope, tests, message, traceback: those tests will not run
        fixture-skipped     phase, scope, tests, message: those tests are skipped
        stray               pid: of a forked copy that came back into the suite; its number means nothing
        end                 threads, good: names of those that keep the process alive; whether unittest's own
                            account is that all went well; the last line

The id of a test is unittest's id(); that of a module which could not be loaded, or which skipped itself, is
the module's name. Tests of one id are told apart by their ordinal in order of discovery.

No end line, no pass. A child that can no longer write its events exits at once, with status 121.
"""
