"""Run as: mitmdump -s addons/palyra_egress_addon.py --set palyra_policy=FILE --set …

Everything is in `palyra_egress.proxy.addon`; see there for the options and for what is enforced.
"""

from palyra_egress.proxy.addon import PalyraEgressAddon

addons = [PalyraEgressAddon()]
