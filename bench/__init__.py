"""Measurements: `python -m bench`. Tests never assert a time; this is where times are taken. See docs/performance.md.

| file | what |
|---|---|
| `__main__` | arguments, what can be measured here, the report |
| `plan` | what a run is asked for, and what a group of cases is |
| `rounds` | probes, and the order in which they take turns |
| `figures` | medians, spread, ratios, and what is within the noise |
| `report` | the Markdown table and the JSON |
| `compare` | two revisions: the worktree of the base, and the verdicts |
| `trees` | a folder of source code that is measured |
| `server` | a server process started from a tree |
| `worker` | a process that measures Python code of a tree |
| `load` | what every load has in common |
| `wrk` | the load program for HTTP: what it is told, and what its output means |
| `client` | the one for gRPC, in C: the same |
| `messages` | what is sent by gRPC |
| `others` | Redis and etcd, and their loads |
| `cases` | a module for each group of cases |
| `libraries` | what is written by hand beside the library it replaces; run by itself |
| `bare` | the bindings without a line of ours between |
"""
