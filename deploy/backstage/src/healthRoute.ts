import type { HttpAuthService, HttpRouterService, PermissionsService } from '@backstage/backend-plugin-api';
import { NotAllowedError } from '@backstage/errors';
import { kubernetesClustersReadPermission } from '@backstage/plugin-kubernetes-common';
import { type Health, withoutNames } from './health';

/** Below /api/kubernetes. */
export const HEALTH_PATH = '/palette-sync/health';

type Handler = Parameters<HttpRouterService['use']>[0];

/**
 * Serves the health route to callers with the permission `kubernetes.clusters.read`, because the answer names clusters.
 * The status is 200 while there are clusters to show, else 503. All other requests go on to the plugin.
 */
export function healthHandler(options: {
  readonly health: () => Health;
  /** Users then get counts instead of the names of clusters, some of which they may not see. */
  readonly hidesNames?: boolean;
  readonly httpAuth: HttpAuthService;
  readonly permissions: PermissionsService;
}): Handler {
  return async (request, response, next) => {
    if (request.path !== HEALTH_PATH || request.method !== 'GET') {
      next();
      return;
    }
    try {
      const credentials = await options.httpAuth.credentials(request, { allow: ['user', 'service'] });
      const [decision] = await options.permissions.authorize([{ permission: kubernetesClustersReadPermission }], {
        credentials,
      });
      if (decision?.result === 'DENY') {
        throw new NotAllowedError('kubernetes.clusters.read is needed');
      }
      const isUser = (credentials.principal as { type: string }).type === 'user';
      const health = options.hidesNames && isUser ? withoutNames(options.health()) : options.health();
      response.status(health.status === 'unavailable' ? 503 : 200).json(health);
    } catch (error) {
      next(error);
    }
  };
}
