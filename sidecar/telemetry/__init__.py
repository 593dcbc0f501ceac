"""Facts go in through one `report`; log lines, metrics and the audit log come out.

Other rooms import `facts` only. `reporter` joins the three sinks: `logs`, `metrics`, `audit`.
"""
