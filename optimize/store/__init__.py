"""The MLflow store: experiment = task, run = command, nested run = attempt. The only package that
imports mlflow.
"""
