"""What ``inv bench`` measures on a host of the stack itself, where one clock stamps everything.

:mod:`.ledger` watches commits become visible, :mod:`.topic` reads back what was sent and when it arrived, and
:mod:`.match` brings the two together. The other modules are one measurement each; :mod:`.command` chooses among them.
"""
