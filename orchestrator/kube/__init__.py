"""Sweeps on Kubernetes: a study and a cluster file become a RayJob that KubeRay runs."""
