"""`palyra-egress demo`: the system's main job on real traffic, told as a story."""
