"""Training the cross-encoder; needs the extras `build` and `export`, and is never imported by what serves."""
