"""Celery workers: claim a job, start the trainer as a process, watch it, take in what it says. Never imports torch."""
