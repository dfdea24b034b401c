"""Writing fitted models as ONNX graphs, and verifying that these answer as the originals do."""
