"""A PodTemplate in the cluster file: read, merged into pods, and held to what must stay."""
