# The version is part of the config's name. Swarm cannot change a config, so a changed app.ini.tmpl needs a new
# version here.
export APP_INI_VERSION=v1
