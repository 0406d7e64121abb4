"""Models as ONNX files, and ONNX files as models."""
