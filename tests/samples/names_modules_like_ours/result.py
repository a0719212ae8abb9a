NAME = "result"
