# Versions of the stack's configs: a config of swarm cannot be changed, so a changed file needs a new name.
export APP_INI_VERSION=v1
