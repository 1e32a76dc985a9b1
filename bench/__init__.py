"""How long nsyskit takes, against ``nsys stats`` on the same file. See README.md beside this file."""
