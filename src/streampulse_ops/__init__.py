"""Code of the tasks: environments, machines, artifacts, Ansible, and the care of a running stack."""
