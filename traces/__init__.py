"""Sample traces and the generator of synthetic ones."""
