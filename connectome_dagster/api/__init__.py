"""The Data API: what can be asked, how it is sent, what the answers mean. Knows no frames."""
