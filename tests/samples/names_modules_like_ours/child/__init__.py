NAME = "child"
