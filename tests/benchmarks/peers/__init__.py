"""One module per peer. Each function runs in a process of its own and hands values to `report`.

rpc        serve_rpc(report): report the address, serve `add(a, b)` until ended.
           load_rpc(report, address, plan): report the calls/s of each (in flight, seconds) of the plan.
broadcast  serve_broadcast(report, subscribers, count): report the port; when `subscribers` are there, report
           `time.monotonic()` and publish `_sockets.messages(count)` one by one.
           handshake(sock): what a raw blocking socket says before it is a subscriber (also for idle).
idle       serve_idle(report, *stages): report the port; whenever the next stage's number of connections
           is there, report `_sockets.private_kib()`.
federated  serve_federated(report, clients, rounds): report the address, then the seconds of each round.
           learn(report, address): one client that returns the parameters it was given.
"""
