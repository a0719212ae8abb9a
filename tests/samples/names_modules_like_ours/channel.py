NAME = "channel"
