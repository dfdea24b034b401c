"""ONNX models: those that clewline compiled, and files that somebody brings."""
