// ${CONFIG}/web/custom-config.js; the host is that of PUBLIC_URL.
config.visitors = { ...config.visitors, queueService: 'meet.example.com/waiting-queue' };
