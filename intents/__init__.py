"""FAQ entries, the index built of them, and the decision made with it. Knows no sockets and no clock."""
