"""What the house tells those who run it: figures for Prometheus, and log lines that machines can read."""
