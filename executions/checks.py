"""Django system checks of the host: tools, their versions, cgroups, and the order of time-outs."""
