"""django-q2's cluster made fit to be killed: its parts talk through the kernel, without locks.

django-q2 joins its processes by multiprocessing's queues, events and values. Each of these is
guarded by a semaphore that a killed process takes to its grave: kill one idle worker with -9 and
the others never get a task again. Here a message goes through a socket, an event is a pipe, and
the kernel lets go of both by itself. Its guard, worker loop and monitor are used as they are.
"""
