"""Run model bundles with ONNX Runtime: all of `export` that serving needs."""
