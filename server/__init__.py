"""Answer messages over websockets, within a budget."""
