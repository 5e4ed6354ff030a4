"""A whole federation in a simulated world: whatever breaks, nothing is lost and everybody is told the truth.

- ``notes``: what the nodes have seen, held against the rules as it comes
- ``hub``: the server's program: calls, topics, messages, training
- ``member``: the clients' and the learners' programs
- ``script``: what goes wrong, drawn from a source of chance
- ``federation``: one run: everything starts, breaks, is healed, and must come to rest
- ``seeds``: many runs, the seeds that ever failed, and the story of one
"""
