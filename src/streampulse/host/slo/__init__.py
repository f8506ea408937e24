"""What Prometheus and Alertmanager know, for people without a browser, and silences for maintenance.

``streampulse slo`` and ``streampulse silence`` run on the host that watches; ``inv status --full``, ``inv top``,
``inv doctor`` and ``inv silence`` ask them from afar.
"""
