"""Jobs: attempt-counted pieces of work, and the only things with a status."""
