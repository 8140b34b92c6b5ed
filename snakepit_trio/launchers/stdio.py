from . import local

launch = local.launch
