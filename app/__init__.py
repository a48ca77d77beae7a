"""The manager: rows, REST API and streams. Never imports torch, and never imports `worker`."""
