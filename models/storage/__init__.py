"""Reading and writing: files, archives, temporary folders, gsutil."""
