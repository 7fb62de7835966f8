"""One record of a run, and its faces: text and pictures. Knows no MLflow."""
