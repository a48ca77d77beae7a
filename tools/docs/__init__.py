"""Parts of docs/ that are made by the code they describe: `make docs`. They are committed; a test says when they are behind."""
