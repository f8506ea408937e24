"""The measurements of ``inv bench`` that run on a host of the stack, where one clock stamps everything.

:mod:`.ledger` records when commits become visible, :mod:`.topic` reads back the records and their arrival times, and
:mod:`.match` joins the two. Each other module is one measurement; :mod:`.command` dispatches.
"""
