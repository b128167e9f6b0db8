"""The kinds of graders, a file each, named as the kind."""
