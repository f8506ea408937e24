"""What the tasks call: environments, machines, artifacts, Ansible, and the looking-after of a running stack."""
