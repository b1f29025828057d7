"""Ray, and the driver that runs a study from file to board. The only room that imports ray."""
