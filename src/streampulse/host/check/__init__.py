"""``streampulse check``: the part of ``inv doctor`` that runs on one host. It changes nothing.

Each look is a function in a registry, with the services that it concerns. It runs only where the unit of one of them
is installed, so that the same command is right on every host. It yields findings: an observation, or a fault with its
code, its cause and the command that fixes it. To add a look, register a function with :func:`.host.look` in the module
of its subject, and enter its code in ``src/streampulse_ops/monitoring/findings.yml``.
"""
