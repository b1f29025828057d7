"""Sweeps on Kubernetes, as RayJobs of KubeRay. The only room that imports kubernetes."""
