"""ciapp tests every commit pushed to a git repository.

The walk of a commit, and the room of each step:

    git push
      hooks/post-receive      sh: the ref updates and push options into one spool file
      ciapp.intake            spool → push → the commits it made reachable → ledger rows
      ciapp.tasks             one Celery task per run: an envelope around the pipeline
      ciapp.testing           admit → checkout → environment → sandboxed child → report
      ciapp.testing.child     stdlib only: runs the commit's tests, tells of them as JSON lines
      ciapp.backend           the Celery result backend: report and task state in one transaction
      ciapp.results           what reports say, kept and compared: the ledger
      ciapp.outlets, ciapp.web   reports reach people

`celery -A ciapp` finds the Celery application in `ciapp.celery`.
"""

__version__ = "0.1.0"
