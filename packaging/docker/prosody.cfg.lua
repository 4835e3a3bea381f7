-- ${CONFIG}/prosody/config/conf.d/00-usher.cfg.lua, beside the modules in ${CONFIG}/prosody/prosody-plugins-custom.
-- The modules are loaded by XMPP_MODULES=usher_reservations,usher_queue in .env, with ENABLE_GUESTS=1 on both hosts.
usher_url = "http://usher.meet.jitsi:8060"
-- USHER_TOKEN of .env; usher.yml passes it to the container.
usher_token = ENV_USHER_TOKEN
